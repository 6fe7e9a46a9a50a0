"""What a function in Python has of bield: handler (routes, refusals, log), kv (buckets), nn (sealed models)."""
