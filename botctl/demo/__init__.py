"""What `botctl demo` shows, and the private fleet that it shows it on."""
