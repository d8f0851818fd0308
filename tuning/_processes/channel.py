"""Authenticates the calls that the chief receives: they carry the search's token and the worker's name.

Any program on the machine can connect to the chief's port. The token is in a file of the search's directory
that only the user can read.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

import grpc
from google.protobuf.message import Message

from keras_rwinit._files import write_secret

__all__ = ["AuthenticatingInterceptor", "Caller", "make_token", "open_channel", "read_token"]

Metadata: TypeAlias = tuple[tuple[str, str], ...]

_FILE = ".token"
_TOKEN, _WORKER, _PROCESS = "keras-rwinit-token", "keras-rwinit-worker", "keras-rwinit-process"
_THIS_PROCESS = uuid.uuid4().hex


def make_token(directory: Path) -> str:
    """Returns the token of the search in `directory`; makes one if it has none."""
    if not (directory / _FILE).exists():
        write_secret(directory / _FILE, secrets.token_hex(32))
    return read_token(directory)


def read_token(directory: Path) -> str:
    """Returns the token of the search in `directory`; OSError if the file cannot be read."""
    return (directory / _FILE).read_text(encoding="utf-8")


class _Details(NamedTuple):
    """What a client says of a call, as gRPC's interceptors take it."""

    method: str
    timeout: float | None
    metadata: Metadata
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _AddMetadata(grpc.UnaryUnaryClientInterceptor):
    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata

    def intercept_unary_unary(
        self, continuation: Callable[..., grpc.Call], details: grpc.ClientCallDetails, request: Message
    ) -> grpc.Call:
        metadata = (*(details.metadata or ()), *self.metadata)
        return continuation(
            _Details(
                details.method,
                details.timeout,
                metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )


def open_channel(address: str, token: str, worker: str | None = None) -> grpc.Channel:
    """Returns a channel to the chief whose calls it takes.

    Args:
        address: Where the chief listens.
        token: Token of the search.
        worker: Name of the worker that calls. `None`: it is not a worker.
    """
    metadata: Metadata = ((_TOKEN, token),)
    if worker is not None:
        # Quoted, since metadata are ASCII.
        metadata += ((_WORKER, quote(worker)), (_PROCESS, _THIS_PROCESS))
    return grpc.intercept_channel(grpc.insecure_channel(address), _AddMetadata(metadata))


class Caller(NamedTuple):
    """The worker that a call comes from.

    Args:
        worker: Its name.
        process: A random string, which tells two processes of one name apart.
    """

    worker: str
    process: str


class AuthenticatingInterceptor(grpc.ServerInterceptor):
    """Lets the calls of a search's own processes in, one at a time.

    A call is read by one of many threads and then waits for its turn in a single one: a call whose request
    never arrives blocks nobody, and no two calls change the oracle at once.

    Args:
        token: Token of the search.
        on_call: Called in turn before a worker's call; may raise through `context.abort`.
        on_error: Called with what a call raises.
    """

    def __init__(
        self,
        token: str,
        on_call: Callable[[Caller, grpc.ServicerContext], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.token, self.on_call, self.on_error = token.encode(), on_call, on_error
        self.turns = ThreadPoolExecutor(max_workers=1, thread_name_prefix="oracle")

    def run(self, function: Callable[..., Any], *args: object) -> Any:
        """Returns the result of a function when its turn has come."""
        return self.turns.submit(function, *args).result()

    def intercept_service(
        self, continuation: Callable[..., grpc.RpcMethodHandler], details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """Returns the handler of a call: the service's own, or one that refuses."""
        metadata = {key: value for key, value in details.invocation_metadata if isinstance(value, str)}
        if not secrets.compare_digest(metadata.get(_TOKEN, "").encode(errors="replace"), self.token):
            # Declared to take a stream: it answers at once, and does not wait for a request.
            return grpc.stream_unary_rpc_method_handler(_refuse)
        handler = continuation(details)
        if handler is None:
            return None
        worker, process = metadata.get(_WORKER), metadata.get(_PROCESS)

        def handle(request: Message, context: grpc.ServicerContext) -> Message:
            if worker is not None and process is not None:
                self.on_call(Caller(unquote(worker), process), context)
            try:
                return handler.unary_unary(request, context)
            except Exception as error:
                self.on_error(error)
                raise

        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self.run(handle, request, context),
            handler.request_deserializer,
            handler.response_serializer,
        )


def _refuse(requests: object, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "This process does not belong to the chief's search.")
