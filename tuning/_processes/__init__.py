"""A search by several processes: a chief, its workers, and how each notices that another is lost."""
