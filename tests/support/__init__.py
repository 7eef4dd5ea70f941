"""What the tests share: real programs, server processes, and a small HTTP client of their own."""
