"""What a turn costs, beside its bare parts and beside what people would use instead. See docs/performance.md."""
