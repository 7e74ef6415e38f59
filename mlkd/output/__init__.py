"""What users see: errors of one line, progress, no secrets."""
