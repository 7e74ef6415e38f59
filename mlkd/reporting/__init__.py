"""Reading run records back: comparison, pictures, tables, the page."""
