"""What is measured, one file a question; each has a function from `Options` to a list of `Section`s."""
