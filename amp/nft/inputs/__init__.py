"""Read and check the user's input before any work starts."""
