"""Read and check what the user gives, before any work starts."""
