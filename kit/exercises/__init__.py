"""The exercises of the lessons, a module each; `EXERCISES` maps their names to what they try."""
