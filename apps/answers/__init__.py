"""Answers from documents: a collection of documents is searched, read, and answers with its place."""
