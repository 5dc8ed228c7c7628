"""What became of a run, and how two differ: `story` sorts the records, `outcome` finds the words, `page` writes the file."""
