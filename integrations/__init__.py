"""The integrations of EDM, EDM2 and VAR. Imported as `ddo_integrations`; found through entry points, as any other."""
