"""Tokenizer, backbone, scene state and heads."""
