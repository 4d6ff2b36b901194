"""How many published ViTs vitreous loads with the outputs of the peer's own code, by family.

    make coverage

Every name under which timm publishes a pretrained ViT, and every image class of transformers with the architecture of
one, is built with random weights, saved as its library publishes it, loaded by vitreous, and compared.
"""
