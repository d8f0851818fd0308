"""Sphinx's settings for the site. From the repository's root:

python -m sphinx -W --keep-going -n -b html docs docs/_build/html
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

# The notebooks' kernels inherit this: TensorFlow's start-up messages are not part of a guide.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

project = "keras-rwinit"
author = "keras-rwinit developers"
project_copyright = author
release = version = installed_version("keras-rwinit")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "markdown_docstrings",
]
exclude_patterns = ["_build", "_ext"]
# What nitpick cannot find: other packages, whose inventories a build without a network does not have, and the
# private names of types that signatures show.
nitpick_ignore_regex = [
    (r"py:.*", r"(keras|keras_tuner|numpy|np|matplotlib|os|collections|pathlib|tensorflow_datasets)\..*"),
    (r"py:.*", r"keras_rwinit\.(\w+\.)*(_\w+\.\w+|KerasLayer)"),
    (r"py:.*", r"(Walk|Prediction|Correlation|Record|Figure|Axes|NotElementwiseError|optional)"),
    (r"py:.*", r"ArrayLike|ActivationError|pandas\.DataFrame"),
]

# Notebooks are text without outputs. A build executes those that changed since the last one.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_excludepatterns = []
nb_output_stderr = "remove"
nb_merge_streams = True

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_type_aliases = {
    "ArrayLike": "ArrayLike",
    "SearchData": "str | keras_rwinit.data.Dataset | tuple[ArrayLike, ArrayLike]",
}
autosummary_generate = False
maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Input shape", "returns_style"), ("Output shape", "returns_style"), "Weights"]
python_use_unqualified_type_names = True
add_module_names = False
math_number_all = False
math_eqref_format = "({number})"
numfig = False

html_theme = "furo"
html_title = "keras-rwinit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
html_show_sourcelink = True
html_copy_source = True
