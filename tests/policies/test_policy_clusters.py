"""Groups of policies by hand."""

import torch

from perceptkit.policies.policy_clusters import CANDIDATES, distance, policy_clusters

T = torch.tensor
KEEP = T([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]).bool()


def test_distance_by_hand():
    assert distance(KEEP, KEEP[:2]).tolist() == [[0, 4], [4, 0], [1, 3], [3, 1]]


def test_groups_by_hand():
    # first centre: sum of distances 0+4x5+1x4+3x1 = 27 for row 0, 40+0+12+1 = 53 for row 1, 10+15+0+4 = 29 for row 2
    centres, group_U = policy_clusters(KEEP, T([10, 5, 4, 1]), most=2)
    assert centres == (0, 1) and group_U.tolist() == [0, 1, 0, 1]


def test_the_first_centre_is_in_the_middle_of_the_images_not_the_most_frequent():
    keep_UR = T([[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]).bool()
    centres, _ = policy_clusters(keep_UR, T([4, 3, 3, 3, 3]), most=1)
    assert centres == (1,)  # 4x4 + 3x3, against 4x3 + 3x9 for row 0 and 4x3 + 3x5 for those after it


def test_few_policies_are_groups_of_their_own():
    centres, group_U = policy_clusters(KEEP, T([10, 5, 4, 1]))
    assert sorted(centres) == [0, 1, 2, 3]
    assert [centres[g] for g in group_U.tolist()] == [0, 1, 2, 3]


def test_of_equals_the_more_frequent_is_the_centre():
    centres, _ = policy_clusters(KEEP[:2], T([3, 3]), most=1)
    assert centres == (0,)


def test_very_many_policies():
    bits_U = torch.arange(2048)
    keep_UR = (bits_U[:, None] >> torch.arange(11) & 1).bool()
    centres, group_U = policy_clusters(keep_UR, torch.ones(2048, dtype=torch.long))
    assert len(set(centres)) == 6 and max(centres) < CANDIDATES
    assert group_U.unique().tolist() == list(range(6))
    assert policy_clusters(keep_UR, torch.ones(2048, dtype=torch.long))[0] == centres
