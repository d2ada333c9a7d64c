"""What is written down of SpotTune's choices."""

import torch

from perceptkit.train.adapting_record import choices


def test_choices_by_hand():
    tuned_NR = torch.tensor([[1, 0], [1, 1], [1, 0], [0, 0]], dtype=torch.bool)
    found = choices(tuned_NR, ["a", "b", "c", "d"])
    assert found["num_images"] == 4 and found["rate"] == [0.75, 0.25]
    assert found["policies"][0] == {"tuned": [1, 0], "pictures": 2} and len(found["policies"]) == 3
    assert found["fewest"] == [3, 0] and found["most"] == [1, 2]
    assert found["examples"]["0"] == {"id": "a", "policy": 0}
    assert sum(row["pictures"] for row in found["clusters"]) == 4
    assert set(found["examples"]) == {"0", "1", "2", "3"}


def test_no_extremes_where_all_have_as_many():
    found = choices(torch.tensor([[1, 0], [0, 1]], dtype=torch.bool), ["a", "b"])
    assert found["fewest"] == found["most"] == []
