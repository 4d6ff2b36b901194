"""timm's files, one module of timm each: VisionTransformer, Eva and Beit, under one family."""
