"""The part of the Core ML model specification that an ML program uses, as tables for `wire.Reader`.

Field numbers follow the public Model.proto, FeatureTypes.proto and MIL.proto of Core ML specification versions 6
(iOS 15) to 9 (iOS 18). Messages of the MIL part are strict: a field nobody here knows could change what the program
computes.
"""

from exporter.mil.wire import Field, Message

# Model.Type, for a message that says what the file holds when it is not an ML program.
MODEL_KINDS = {
    200: "pipelineClassifier",
    201: "pipelineRegressor",
    202: "pipeline",
    300: "glmRegressor",
    301: "supportVectorRegressor",
    302: "treeEnsembleRegressor",
    303: "neuralNetworkRegressor",
    304: "bayesianProbitRegressor",
    400: "glmClassifier",
    401: "supportVectorClassifier",
    402: "treeEnsembleClassifier",
    403: "neuralNetworkClassifier",
    404: "kNearestNeighborsClassifier",
    500: "neuralNetwork",
    501: "itemSimilarityRecommender",
    555: "customModel",
    556: "linkedModel",
    560: "classConfidenceThresholding",
    600: "oneHotEncoder",
    601: "imputer",
    602: "featureVectorizer",
    603: "dictVectorizer",
    604: "scaler",
    606: "categoricalMapping",
    607: "normalizer",
    609: "arrayFeatureExtractor",
    610: "nonMaximumSuppression",
    900: "identity",
    2000: "textClassifier",
    2001: "wordTagger",
    2002: "visionFeaturePrint",
    2003: "soundAnalysisPreprocessing",
    2004: "gazetteer",
    2005: "wordEmbedding",
    2006: "audioFeaturePrint",
    3000: "serializedModel",
}


def _map(name: str, value: str) -> Field:
    return Field(name, "map", value)


def _entry(value: str) -> Message:
    return Message({1: Field("key", "string"), 2: Field("value", "message", value)})


def _one(name: str, message: str) -> Field:
    return Field(name, "message", message)


def _many(name: str, message: str) -> Field:
    return Field(name, "message", message, repeated=True)


_MODEL = {
    "Model": Message(
        {
            1: Field("specificationVersion", "int"),
            2: _one("description", "ModelDescription"),
            502: _one("mlProgram", "Program"),
            **{number: Field(kind, "bytes") for number, kind in MODEL_KINDS.items()},
        },
        strict=False,
    ),
    "ModelDescription": Message(
        {
            1: _many("input", "FeatureDescription"),
            10: _many("output", "FeatureDescription"),
            11: Field("predictedFeatureName", "string"),
            12: Field("predictedProbabilitiesName", "string"),
            13: _many("state", "FeatureDescription"),
            20: _many("functions", "FunctionDescription"),
            21: Field("defaultFunctionName", "string"),
        },
        strict=False,
    ),
    "FunctionDescription": Message(
        {
            1: Field("name", "string"),
            2: _many("input", "FeatureDescription"),
            3: _many("output", "FeatureDescription"),
            4: Field("predictedFeatureName", "string"),
            5: Field("predictedProbabilitiesName", "string"),
            6: _many("state", "FeatureDescription"),
        },
        strict=False,
    ),
    "FeatureDescription": Message({1: Field("name", "string"), 3: _one("type", "FeatureType")}, strict=False),
    "FeatureType": Message(
        {
            1: Field("int64Type", "bytes"),
            2: Field("doubleType", "bytes"),
            3: Field("stringType", "bytes"),
            4: _one("imageType", "ImageFeatureType"),
            5: _one("multiArrayType", "ArrayFeatureType"),
            6: Field("dictionaryType", "bytes"),
            7: Field("sequenceType", "bytes"),
            8: _one("stateType", "StateFeatureType"),
            1000: Field("isOptional", "bool"),
        }
    ),
    "StateFeatureType": Message({1: _one("arrayType", "ArrayFeatureType")}),
    "ImageFeatureType": Message(
        {
            1: Field("width", "int"),
            2: Field("height", "int"),
            3: Field("colorSpace", "uint"),
            21: _one("enumeratedSizes", "EnumeratedImageSizes"),
            31: _one("imageSizeRange", "ImageSizeRange"),
        }
    ),
    "EnumeratedImageSizes": Message({1: _many("sizes", "ImageSize")}),
    "ImageSize": Message({1: Field("width", "uint"), 2: Field("height", "uint")}),
    "ImageSizeRange": Message({1: _one("widthRange", "SizeRange"), 2: _one("heightRange", "SizeRange")}),
    "ArrayFeatureType": Message(
        {
            1: Field("shape", "ints"),
            2: Field("dataType", "uint"),
            21: _one("enumeratedShapes", "EnumeratedShapes"),
            31: _one("shapeRange", "ShapeRange"),
            41: Field("intDefaultValue", "int"),
            51: Field("floatDefaultValue", "floats"),
            61: Field("doubleDefaultValue", "doubles"),
        }
    ),
    "EnumeratedShapes": Message({1: _many("shapes", "ArrayShape")}),
    "ArrayShape": Message({1: Field("shape", "ints")}),
    "ShapeRange": Message({1: _many("sizeRanges", "SizeRange")}),
    "SizeRange": Message({1: Field("lowerBound", "uint"), 2: Field("upperBound", "int")}),
}

_PROGRAM = {
    "Program": Message(
        {
            1: Field("version", "int"),
            2: _map("functions", "Function"),
            3: Field("docString", "string"),
            4: _map("attributes", "Value"),
        }
    ),
    "Function": Message(
        {
            1: _many("inputs", "NamedValueType"),
            2: Field("opset", "string"),
            3: _map("block_specializations", "Block"),
            4: _map("attributes", "Value"),
        }
    ),
    "Block": Message(
        {
            1: _many("inputs", "NamedValueType"),
            2: Field("outputs", "string", repeated=True),
            3: _many("operations", "Operation"),
            4: _map("attributes", "Value"),
        }
    ),
    "Operation": Message(
        {
            1: Field("type", "string"),
            2: _map("inputs", "Argument"),
            3: _many("outputs", "NamedValueType"),
            4: _many("blocks", "Block"),
            5: _map("attributes", "Value"),
        }
    ),
    "Argument": Message({1: _many("arguments", "Binding")}),
    "Binding": Message({1: Field("name", "string"), 2: _one("value", "Value")}),
    "NamedValueType": Message({1: Field("name", "string"), 2: _one("type", "ValueType")}),
    "FunctionEntry": _entry("Function"),
    "BlockEntry": _entry("Block"),
    "ArgumentEntry": _entry("Argument"),
    "ValueEntry": _entry("Value"),
}

_TYPES = {
    "ValueType": Message(
        {
            1: _one("tensorType", "TensorType"),
            2: _one("listType", "ListType"),
            3: _one("tupleType", "TupleType"),
            4: _one("dictionaryType", "DictionaryType"),
            5: _one("stateType", "StateType"),
        }
    ),
    "TensorType": Message(
        {
            1: Field("dataType", "uint"),
            2: Field("rank", "int"),
            3: _many("dimensions", "Dimension"),
            4: _map("attributes", "Value"),
        }
    ),
    "TupleType": Message({1: _many("types", "ValueType")}),
    "ListType": Message({1: _one("type", "ValueType"), 2: _one("length", "Dimension")}),
    "DictionaryType": Message({1: _one("keyType", "ValueType"), 2: _one("valueType", "ValueType")}),
    "StateType": Message({1: _one("wrappedType", "ValueType")}),
    "Dimension": Message({1: _one("constant", "ConstantDimension"), 2: _one("unknown", "UnknownDimension")}),
    "ConstantDimension": Message({1: Field("size", "uint")}),
    "UnknownDimension": Message({1: Field("variadic", "bool")}),
}

_VALUES = {
    "Value": Message(
        {
            1: Field("docString", "string"),
            2: _one("type", "ValueType"),
            3: _one("immediateValue", "ImmediateValue"),
            5: _one("blobFileValue", "BlobFileValue"),
        }
    ),
    "ImmediateValue": Message(
        {
            1: _one("tensor", "TensorValue"),
            2: _one("tuple", "TupleValue"),
            3: _one("list", "ListValue"),
            4: _one("dictionary", "DictionaryValue"),
        }
    ),
    "BlobFileValue": Message({1: Field("fileName", "string"), 2: Field("offset", "uint")}),
    "TensorValue": Message(
        {
            1: _one("floats", "RepeatedFloats"),
            2: _one("ints", "RepeatedInts"),
            3: _one("bools", "RepeatedBools"),
            4: _one("strings", "RepeatedStrings"),
            5: _one("longInts", "RepeatedInts"),
            6: _one("doubles", "RepeatedDoubles"),
            7: _one("bytes", "RepeatedBytes"),
        }
    ),
    "RepeatedFloats": Message({1: Field("values", "floats")}),
    "RepeatedDoubles": Message({1: Field("values", "doubles")}),
    "RepeatedInts": Message({1: Field("values", "ints")}),
    "RepeatedBools": Message({1: Field("values", "bools")}),
    "RepeatedStrings": Message({1: Field("values", "string", repeated=True)}),
    "RepeatedBytes": Message({1: Field("values", "bytes")}),
    "TupleValue": Message({1: _many("values", "Value")}),
    "ListValue": Message({1: _many("values", "Value")}),
    "DictionaryValue": Message({1: _many("values", "KeyValuePair")}),
    "KeyValuePair": Message({1: _one("key", "Value"), 2: _one("value", "Value")}),
}

SCHEMA: dict[str, Message] = {**_MODEL, **_PROGRAM, **_TYPES, **_VALUES}
