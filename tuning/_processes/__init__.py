"""A search over several processes: a chief, its workers, and how they notice that another has died."""
