"""Scripts that complete botctl in a shell, written from the same declarations as the commands."""
