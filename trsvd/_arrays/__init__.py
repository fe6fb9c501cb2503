"""Arrays of every library, and the only folder that names one."""
