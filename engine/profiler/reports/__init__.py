"""A profile for people: on a terminal, as a page, as a trace, and beside another one."""
