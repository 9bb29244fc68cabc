"""The generator of the open body and hand: CC0 MakeHuman data in, SMPL and MANO layout out.

    source            the pinned wheel: mesh, targets, rig
    population        people as macro parameters, and their shapes
    t_pose            the rest pose
    surface, decimate one closed surface with fewer vertices
    skeleton          joints and skinning weights
    regressors        joints as mixes of vertices
    shape_space       principal components
    pose_corrections  posedirs
    body, hand        the two files
    compare           against the shipped ones

A development tool: nothing of it runs when the package is used.
"""
