"""The configuration: schemas, composition, errors in a line; free of torch."""
