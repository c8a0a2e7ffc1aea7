"""Every decision about every tensor, made before anything is coded."""
