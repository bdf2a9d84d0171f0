"""Encode a corpus, hold it in shards, find the top k; BM25, fusion, runs."""
