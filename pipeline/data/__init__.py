"""Raw corpora to training shards, in four re-runnable stages: ingest, encode, describe, shard."""
