"""What went wrong in a body, in the user's words: bytecode, blame and advice."""
