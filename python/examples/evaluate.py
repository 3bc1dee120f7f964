"""Recalls of an embedded entry on its drawn scenes."""

import laps_zoo

model = laps_zoo.Model.load("shapes_vit")
data = laps_zoo.read_dataset("shapes_vit")
images = model.embed_images(data.images)
captions = model.embed_captions(data.captions)
result = laps_zoo.evaluate(model.similarities(images, captions), data.image_of)
print(f"image to text: R@1 {result.i2t.r1:.1f}  R@5 {result.i2t.r5:.1f}  R@10 {result.i2t.r10:.1f}")
print(f"text to image: R@1 {result.t2i.r1:.1f}  R@5 {result.t2i.r5:.1f}  R@10 {result.t2i.r10:.1f}")
print(f"rSum {result.rsum:.1f}")
