"""What the service is compared with: each module is a server of its own."""
