CREATE INDEX certificates_sha256 ON certificates (sha256);
