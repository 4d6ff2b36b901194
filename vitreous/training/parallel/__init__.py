"""Training in several processes: replicas (DDP) or shards (FSDP2)."""
