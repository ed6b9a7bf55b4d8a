"""Changes of the schema, oldest first in `versions`. Run by `runs_db.migrate`, never by hand."""
