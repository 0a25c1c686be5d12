"""What tests share: servers, databases, samples."""
