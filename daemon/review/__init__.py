"""What the owner says about announcements: kept, counted by day, and proposed to the library."""
