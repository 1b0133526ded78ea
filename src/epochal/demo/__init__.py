"""The demo: real YOLO26n on real handwritten digits, with callbacks, in under four minutes."""
