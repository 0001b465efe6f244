"""Where a job runs. None of these imports torch: they hand jobs over and check what comes back."""
