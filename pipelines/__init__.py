"""From media files to batches: catalog -> plan -> source -> graph -> loader."""
