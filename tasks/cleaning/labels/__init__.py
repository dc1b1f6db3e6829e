"""Label errors: which given labels are likely wrong, and in what order to review them."""
