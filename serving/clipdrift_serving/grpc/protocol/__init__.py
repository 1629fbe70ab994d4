"""The protocol's messages: `inference.proto`, what protoc made of it, and the classes."""
