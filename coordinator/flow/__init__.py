"""The steps of the work: grant, intake, release, bucket making, expiry, operation.  Each reads top to bottom."""
