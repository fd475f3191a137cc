"""Loss, its derivatives and the Levenberg-Marquardt fit."""
