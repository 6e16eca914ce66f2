"""What every room stands on: contracts, workspace, store, processes, engine, errors. Knows no room above it."""
