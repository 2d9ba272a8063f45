"""Budgets, accuracy and the verdict."""
