"""What a refusal says: whose fault it was, what to do instead, and what bytecode tells of either."""
