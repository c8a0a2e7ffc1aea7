"""The code points of units, payloads and compressed parameters that decoding depends on (clause 6.4)."""

NNR_STR, NNR_MPS, NNR_LPS, NNR_TPL, NNR_QNT, NNR_NDU, NNR_AGG = range(7)
NNR_PT_INT, NNR_PT_FLOAT, NNR_PT_RAW_FLOAT, NNR_PT_BLOCK = range(4)
CPT_DC, CPT_LS, CPT_BN, CPT_BI = 1, 2, 4, 8
TPL_PRUN, TPL_REFLIST = 5, 6
