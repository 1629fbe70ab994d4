"""The Open Inference Protocol over gRPC. The only room that imports grpc."""
