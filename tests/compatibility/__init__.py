"""What an earlier version of the package wrote and computed, held against the present one."""
