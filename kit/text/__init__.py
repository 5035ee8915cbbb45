"""Texts as bytes: corpora that need no download or are yours, split by file, read from disk."""

from kit.text.corpus import Corpus, corpus
from kit.text.tokens import VOCABULARY, decode, encode, windows

__all__ = ["VOCABULARY", "Corpus", "corpus", "decode", "encode", "windows"]
