"""The scorer's server: lets only what it knows pass, scores it in processes that may die."""
